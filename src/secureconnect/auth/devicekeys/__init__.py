"""Device keys: the public keys by which devices encrypt for each other. The server never sees a private one.

`bundles` are the calls of clients that know bundles (identity, signed pre-key, one-time pre-keys); `olm`
those of Olm and Megolm clients, whose documents are taken and given as their libraries make them. Both stand
on the same keys: a signed pre-key is a fallback key. `inbox` carries what one device sends another,
`crosssigning` what people sign of each other, `backup` what they keep sealed for themselves; `news` tells
whom it concerns. `signing` alone knows about curves and signatures.
"""
