"""How a picture goes through a backbone and any number of heads: exactly as in torchvision, or fast."""
