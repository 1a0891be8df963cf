"""A tuned model in the formats that others read, each read back and compared before it is there."""
