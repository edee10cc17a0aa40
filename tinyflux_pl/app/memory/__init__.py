"""Memory plans of training and drawing."""
