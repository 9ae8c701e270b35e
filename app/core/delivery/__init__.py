"""Plans loads, has their statements, and classes errors."""
