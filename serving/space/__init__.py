"""A bundle as a Hugging Face Space: a folder with a Gradio page that scores by ONNX alone.

In: a bundle folder. Out: a folder to push (see write.py); app.py is the page, copied as it is.
"""
