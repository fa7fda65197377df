//! vosk shapes.
