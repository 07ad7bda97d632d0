"""Why an ensemble says what it says.

In: an image and a bundle. Out: Grad-CAM maps, by member and pooled, and their overlay as a picture.
"""
