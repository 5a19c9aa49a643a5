"""Raw files to prepared arrays to crops: read once, prepare once, then touch only the voxels of a crop."""
