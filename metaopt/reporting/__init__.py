"""Tables, sentences, charts and reports of an evaluation."""
