"""What happens around the training steps; each callback is a choice in conf/callbacks."""
