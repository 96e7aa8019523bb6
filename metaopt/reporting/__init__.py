"""Tables, sentences and charts of an evaluation."""
