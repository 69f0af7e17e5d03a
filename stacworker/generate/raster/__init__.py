"""One raster file a request → a cloud-optimised GeoTIFF in S3, and the item that points at it.

The daemon fetches the file and uploads the result; the child process in between (`child/raster.py`) has no
credentials and sees two files in a folder of the job's own.
"""
