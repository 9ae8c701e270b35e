"""The five Faust agents: bridge, etl, sink, delivery, audit; each reads as one loop."""
