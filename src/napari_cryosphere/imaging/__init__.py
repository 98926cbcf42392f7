"""How a map becomes an image, and what is done to an image before a network sees it.

Import from the modules.
"""
