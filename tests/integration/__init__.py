"""The backend against the emulator, over real HTTP."""
