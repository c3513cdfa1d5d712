"""The kinds of messages, by our names and by Flower's; needs neither of them."""

HELLO, TRAIN, FINISH = "hello", "train", "finish"
# The part after the point is ours.
TYPES = {HELLO: "query", TRAIN: "train", FINISH: "train.finish"}
