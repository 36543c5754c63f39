"""The networks that the authors of MGAS released (github.com/lxy12357/MG_DARTS), in short notation."""

# ruff: noqa: E501

LARGE = """
c0 w40 | n2: 0s3/42 1s3/42 1s5/42 | n3: 0s3 0s5 0mp 1s3 1mp 2s5 2d5 2mp | n4: 0s3 1mp 2s3 2mp 3s5 | n5: 0d5 2s3 2mp 3sk 3s5 4sk 4d5
c1 w42 | n2: 0s3 0s5 1s3 1s5 1d5 | n3: 0s5 1sk 2sk 2s3 2s5 2d5 | n4: 3d5 | n5: 4mp
c2 w40 | n2: 0s3 0s5 0d3 1sk 1s3 1s5 1d3 1d5 | n3: 0sk 0s3 0ap 0mp 2sk 2s3 2s5 | n4: 0sk 0s5 0ap 1sk 1d5 1mp 2ap 3mp | n5: 0sk 0d5 0ap 3s3 3s5 3mp 4d5 4mp
c3 w42 | n2: 0s5 0d5 0ap 1sk 1s3 1s5 1ap | n3: 0s5 1s5 1mp 2ap 2mp | n4: 0sk 0ap 2s5 3d3 3mp | n5: 0sk 0ap 1sk 1s3 1ap 3mp 4mp
c4 w60 | n2: 0sk 0s3 0s5 0d5 0ap 1s3/62 1s5 1d3 1d5 1mp | n3: 0ap 2s3 2d3 2d5 | n4: 0s3 0s5 0d5 0ap 0mp 1sk 2sk 2s3 2s5 2d5 2mp 3sk | n5: 0sk 0s3 0s5 0ap 0mp 1s5 1d3 1ap 1mp 2d5 2ap 2mp 3d3 3d5 3mp 4s3 4s5 4mp
c5 w72 | n2: 1d3 | n3: 2mp | n4: 3mp | n5: 4mp
c6 w68 | n2: 0d3 0d5 0ap 0mp 1sk 1s3/74 1d3 1d5 1ap | n3: 0s5 1sk 1d3 1ap 2mp | n4: 1sk 1d3 2mp 3sk 3s3 3s5 3mp | n5: 1d5 3s3 3d5 4mp
c7 w58 | n2: 1s5/62 | n3: 0s3/62 1s5 1d5 2d3 2d5 | n4: 1s3 1d5 2d5 3d5 | n5: 1s3 1s5 1d3 2s3 2d5 3d3 3d5 4s5 4d5 4mp
c8 w60 | n2: 0sk 0d3 0ap 0mp | n3: 0sk 0ap 0mp 1s5 2mp | n4: 0sk 0mp 1s5/66 2s5 3mp | n5: 3mp 4d3 4mp
c9 w116 | n2: 0sk 0s3/124 1s3/142 1s5/122 1mp | n3: 0sk 0s5 0d3 1s5 1mp 2d5 | n4: 0s5 1ap 1mp 2sk 2d3 2d5 3sk | n5: 4d3
c10 w110 | n2: 0sk 0d5 0mp | n3: 0sk 0s3/130 0d5 0mp 1ap 2sk 2s3 2ap | n4: 0s5 0mp 1ap 2sk 2mp 3mp | n5: 0mp 1mp 2s5 2mp 3s3 3d5 4mp
c11 w110 | n2: 0s3/130 1s3/142 1mp | n3: 0sk 0s3/148 1s3/112 1mp | n4: 0sk 0mp 1sk 1s3 | n5: 0sk 0mp 1sk 1ap 4sk
c12 w110 | n2: 0sk 0mp | n3: 0ap 1sk | n4: 2s3 | n5: 4mp
c13 w176 | n2: 0s3 0mp 1ap 1mp | n3: 0s5 0d5 0mp 1ap 1mp 2ap | n4: 0ap 0mp 1ap 3d5 | n5: 0mp 1ap 2ap 2mp 3ap
"""
"""14 cells, 44 channels."""
SMALL = """
c0 w18 | n2: 0s3 0s5/20 1s3/20 1s5/20 1d3 | n3: 0s3 0s5 1s3 2sk 2s3 2s5/20 2d5 | n4: 0mp 1s5 2s3 3s3 3s5 3d5 | n5: 0s3 0mp 1mp 2s5 2mp 3s3 3mp
c1 w24 | n2: 0s3 0s5 0d3 0mp 1s3 1s5 1d3 1d5 1ap | n3: 2d5 | n4: 3mp | n5: 4mp
c2 w36 | n2: 0sk 0s5/40 0d5 1sk 1s5/40 1d5 1ap | n3: 0s3 1sk 1s3 1s5 1ap 2d5 2ap | n4: 0s5 0ap 1s5 1d5 3sk 3s3 3s5 3mp | n5: 0sk 0s3 0s5 0ap 2s3 2s5 2mp 3d5 3mp 4s3 4d3 4mp
c3 w38 | n2: 0sk 0s3 0s5/40 0d5 0ap 0mp 1sk 1s3 1s5/42 1d3 1d5 | n3: 0ap 0mp 1s5 2s3 2s5 2d5 2ap | n4: 0sk 0d5 1s3 1ap 2s5 2d5 2ap 3sk 3s5 3d5 | n5: 0mp 1sk 1s5 1ap 1mp 2mp 3mp 4mp
c4 w40 | n2: 0sk 0s3 0s5 0d3 0d5 1s3 1s5/42 1d3 1d5 1mp | n3: 0sk 0s3 0s5 0d5 1s5 2s5 2mp | n4: 1mp 2s5 2mp 3mp | n5: 2s5 3s5 4s3 4mp
c5 w72 | n2: 0sk 0s3 0s5 0d3 0ap 1sk 1s3 1s5 1d5 1ap | n3: 0sk 0s3 0s5 0ap 1s3 1s5 2sk 2s5 2mp | n4: 3mp | n5: 3mp 4mp
c6 w64 | n2: 0sk 0s5/68 0d3 0d5 0ap 1ap | n3: 0s3 0s5 0d3 0d5 0ap 1s3 1s5 2s5 2ap 2mp | n4: 2s5 2mp 3s5 3mp | n5: 3mp 4mp
c7 w96 | n2: 0d5 | n3: 0s5 0d3 | n4: 0mp | n5: 0sk 0ap 1ap 1mp
"""
"""8 cells, 24 channels."""
