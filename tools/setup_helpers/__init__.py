"""What setup.py is made of: the extension, its compilers, what a build leaves behind, and the build backend."""
