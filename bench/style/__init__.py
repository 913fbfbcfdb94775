"""The style benchmark; see ``__main__``."""
