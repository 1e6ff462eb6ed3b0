"""`python -m hf_maskssl VERB ...`, for `accelerate launch -m hf_maskssl VERB ...`; the same as `hf-maskssl VERB ...`."""

from .commands import main

if __name__ == "__main__":
    main()
