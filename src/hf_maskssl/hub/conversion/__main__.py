"""`python -m hf_maskssl.hub.conversion`."""

from ...scripts import run_script
from . import main

run_script(main)
