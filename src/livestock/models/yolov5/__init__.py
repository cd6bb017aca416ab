"""The family yolov5: the network, the loss and the anchors of the pip package, behind the contract of a family."""
