"""Do the same job with Socket.IO on Node, as a measure: nothing is stored, and a crash loses what was on its way."""
