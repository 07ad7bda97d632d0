"""What people read: report, card, the print of a bundle and the difference of two."""
