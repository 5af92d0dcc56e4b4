"""What a page shows, section by section, made of a report's figures alone; HTML and Markdown are two ways to write it."""
