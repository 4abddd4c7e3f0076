"""One file per figure: a result in, a picture out."""
