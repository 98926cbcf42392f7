"""How a map becomes an image, and what is done to images before a network sees them. Import from the modules."""
