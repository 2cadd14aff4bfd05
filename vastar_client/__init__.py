"""The client side of the Vastar connector runtime."""
