"""Files of prompts: continued or scored line by line, in parts written whole, so that a job can be killed and go on."""
