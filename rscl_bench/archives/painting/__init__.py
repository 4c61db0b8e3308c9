"""The painter of sketch archives: materials, the canvas that they lie on, and scenes made of them.

An adapter paints a scene on a canvas and renders the canvas as its sensor sees it::

    canvas = Canvas(256, 256, rng)
    SCENES["harbor"](canvas, 1.0)
    pixels = canvas.render(sensors.UCMERCED_RGB, Look(gain=2.0, haze=0.07))
"""
