"""How good an engine is: on pictures, and over time on clips. Everything runs in the caller's thread."""
