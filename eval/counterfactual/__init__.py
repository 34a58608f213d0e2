"""What another ranking policy would have earned, estimated from logged lists."""
