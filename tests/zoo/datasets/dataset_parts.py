"""Datasets with one replaced split."""

from __future__ import annotations

# Number of rows and SHA-256 of train, validation and test. Published numbers belong to these rows and to no others.
PINNED = {
    "breast_cancer": [
        (364, "21d9dee9cb47634b8fb62eb14c3988decdd484f73a5a1b7c5d9c404721eabbdc"),
        (91, "ef0ceb1381a12cd867e32c7c5f9dae6f5690f6e8eb78fd857c980e2b7943203a"),
        (114, "d127f07df360f857d157056a55b22c04c51680db5d3b81827b8ea039dd63778d"),
    ],
    "circles": [
        (640, "b6c6ee7020598f69327ef497f8b579032790fcfd00322892ba57be9cbace0b22"),
        (160, "91a10cbcf83edf1b95009222b2d6ed328dac8ac2455e54eb734d80771a95d658"),
        (200, "3295018cff54fb4c4f2fbe33d24d783ed4b792508fa382a67825a4ebf6c3b1af"),
    ],
    "diabetes": [
        (282, "4b33d0b43bd8abde0830565a6bda62e6debeb7aacf6a6aa1d99ff40fa4a21d86"),
        (71, "855e53cec91c781a92a182078d3757015ef6b4c043a72576e30b506c3a1a4505"),
        (89, "b4d44c8cf97c39d29c8a4ed9ed7ac32c22dfe7f25b1abd34dbb1683b9d51584f"),
    ],
    "digits": [
        (1149, "a1262e119e51e51364dcb7bc6f46073c76187da8303a11113c63909a0e8ee026"),
        (288, "a5ec1ea1ac6e00940597cfed25db2b14470f9a311d6a9457fc05a037ed0cbe81"),
        (360, "bdde269783a00ee6488580c4a7f04a18d9d5507dcbec64200ade7d3a05c98b97"),
    ],
    "iris": [
        (96, "b8985dadb99b0b634bd08098c3d75a94ed5a758eb5b6cc75e5373160f4d86d08"),
        (24, "eb5e08b57a5351967c7cc92b599541c919fa2726049295f33658d3d1c9a9fb8e"),
        (30, "7296772c7a3ce22b8e525c6ef22d34ec4f2f5bb4442a08783f15a97e386a9960"),
    ],
    "moons": [
        (640, "8729709ac8452650f3fe427742c4fa62faa1836da5b7fea9f0655d2c56927d76"),
        (160, "53d60a792b0f97beef231fa685315ed07eb103d898dac56db71fbfc8e76d7b79"),
        (200, "4bce80bc241470e825d1205b8682ab865c2af22a97c048fd06ea0a8d077ac2cd"),
    ],
    "rotated_moons": [
        (216, "7540f9ed8d8d0382328b70b26ee80b6c7c89f1b54ce698b0ced0ecb14c2d1472"),
        (216, "2dcce0adedd12676355c21a0e8a432cb6c3024f7d89e3970ee92c377c7f8d28a"),
        (1800, "88e0b0387c4d56453e47a6ddc271482c1cc620d3aa63e4cc504f09c3ab9c6673"),
    ],
    "wine": [
        (113, "7fa7747eb0cc85c59b253f2801c18ae7f52d130596db57343a17041ae75c6673"),
        (29, "fcd4b7dba9346cf3b0ba71757a5b587e71427d28bd2f47630e15cce07f9e3d8c"),
        (36, "c4bb1fa22cf5cfc2d851fcfa2a9352121223baf9c80c9a5cb26902ed6d54dfb9"),
    ],
}
