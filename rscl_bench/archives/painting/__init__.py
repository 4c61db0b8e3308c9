"""The painter of sketch archives: materials, the canvas that they lie on, and scenes made of them.

An adapter paints a scene on a canvas and renders the canvas as its sensor sees it::

    canvas = Canvas(256, 256, rng)
    SCENES["harbor"](canvas, 1.0)
    pixels = canvas.render(sensors.UCMERCED_RGB, Look(middle=0.45, contrast=0.13))
"""
