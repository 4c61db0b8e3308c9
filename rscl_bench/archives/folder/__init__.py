"""The dataset `folder`: any folder of images, described by the options of a scenario."""
