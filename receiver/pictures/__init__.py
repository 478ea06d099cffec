"""Reading, shrinking and recognising pictures from outside."""
