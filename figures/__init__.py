"""Result tables in, pictures out: nothing is computed here."""
