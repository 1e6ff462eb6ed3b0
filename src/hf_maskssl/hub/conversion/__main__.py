"""`python -m hf_maskssl.hub.conversion`."""

from . import main

main()
