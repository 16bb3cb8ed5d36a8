"""The embedded default: pictures, stand-ins for CLIP and Vicuna, and a LLaVA trained from them in minutes."""
