#include "textflag.h"

// The words of a state are v0 to v3 of four messages each: Y0 to Y3 of the first four, Y4 to Y7 of the others. The two
// groups take turns, so that neither waits for its own last result.

DATA rotate16<>+0x00(SB)/8, $0x0504030201000706
DATA rotate16<>+0x08(SB)/8, $0x0D0C0B0A09080F0E
DATA rotate16<>+0x10(SB)/8, $0x0504030201000706
DATA rotate16<>+0x18(SB)/8, $0x0D0C0B0A09080F0E
GLOBL rotate16<>(SB), RODATA|NOPTR, $32

DATA start<>+0x00(SB)/8, $0x736f6d6570736575
DATA start<>+0x08(SB)/8, $0x646f72616e646f83
DATA start<>+0x10(SB)/8, $0x6c7967656e657261
DATA start<>+0x18(SB)/8, $0x7465646279746573
GLOBL start<>(SB), RODATA|NOPTR, $32

#define ROTATE(bits, a, b) \
	VPSLLQ $bits, a, Y8       \
	VPSLLQ $bits, b, Y9       \
	VPSRLQ $(64-bits), a, a   \
	VPSRLQ $(64-bits), b, b   \
	VPOR   Y8, a, a           \
	VPOR   Y9, b, b

#define ROUND \
	VPADDQ  Y1, Y0, Y0     \
	VPADDQ  Y5, Y4, Y4     \
	VPADDQ  Y3, Y2, Y2     \
	VPADDQ  Y7, Y6, Y6     \
	ROTATE(13, Y1, Y5)     \
	VPSHUFB Y10, Y3, Y3    \
	VPSHUFB Y10, Y7, Y7    \
	VPXOR   Y0, Y1, Y1     \
	VPXOR   Y4, Y5, Y5     \
	VPSHUFD $0xB1, Y0, Y0  \
	VPSHUFD $0xB1, Y4, Y4  \
	VPXOR   Y2, Y3, Y3     \
	VPXOR   Y6, Y7, Y7     \
	VPADDQ  Y3, Y0, Y0     \
	VPADDQ  Y7, Y4, Y4     \
	VPADDQ  Y1, Y2, Y2     \
	VPADDQ  Y5, Y6, Y6     \
	ROTATE(21, Y3, Y7)     \
	VPXOR   Y0, Y3, Y3     \
	VPXOR   Y4, Y7, Y7     \
	ROTATE(17, Y1, Y5)     \
	VPXOR   Y2, Y1, Y1     \
	VPXOR   Y6, Y5, Y5     \
	VPSHUFD $0xB1, Y2, Y2  \
	VPSHUFD $0xB1, Y6, Y6

// func sip8(k0, k1 uint64, b *sipBlock, n int)
TEXT ·sip8(SB), NOSPLIT, $0-32
	MOVQ         b+16(FP), DI
	MOVQ         n+24(FP), CX
	MOVQ         DI, SI
	VPBROADCASTQ k0+0(FP), Y8
	VPBROADCASTQ k1+8(FP), Y9
	VPBROADCASTQ start<>+0x00(SB), Y0
	VPBROADCASTQ start<>+0x08(SB), Y1
	VPBROADCASTQ start<>+0x10(SB), Y2
	VPBROADCASTQ start<>+0x18(SB), Y3
	VPXOR        Y8, Y0, Y0
	VPXOR        Y9, Y1, Y1
	VPXOR        Y8, Y2, Y2
	VPXOR        Y9, Y3, Y3
	VMOVDQA      Y0, Y4
	VMOVDQA      Y1, Y5
	VMOVDQA      Y2, Y6
	VMOVDQA      Y3, Y7
	VMOVDQU      rotate16<>(SB), Y10

word:
	VMOVDQU (SI), Y11
	VMOVDQU 32(SI), Y12
	VPXOR   Y11, Y3, Y3
	VPXOR   Y12, Y7, Y7
	ROUND
	ROUND
	VPXOR   Y11, Y0, Y0
	VPXOR   Y12, Y4, Y4
	ADDQ    $64, SI
	DECQ    CX
	JNZ     word

	MOVQ         $0xee, AX
	VMOVQ        AX, X11
	VPBROADCASTQ X11, Y11
	VPXOR        Y11, Y2, Y2
	VPXOR        Y11, Y6, Y6
	ROUND
	ROUND
	ROUND
	ROUND
	VPXOR   Y0, Y1, Y8
	VPXOR   Y4, Y5, Y9
	VPXOR   Y2, Y3, Y11
	VPXOR   Y6, Y7, Y12
	VPXOR   Y8, Y11, Y8
	VPXOR   Y9, Y12, Y9
	VMOVDQU Y8, 512(DI)
	VMOVDQU Y9, 544(DI)

	MOVQ         $0xdd, AX
	VMOVQ        AX, X11
	VPBROADCASTQ X11, Y11
	VPXOR        Y11, Y1, Y1
	VPXOR        Y11, Y5, Y5
	ROUND
	ROUND
	ROUND
	ROUND
	VPXOR   Y0, Y1, Y8
	VPXOR   Y4, Y5, Y9
	VPXOR   Y2, Y3, Y11
	VPXOR   Y6, Y7, Y12
	VPXOR   Y8, Y11, Y8
	VPXOR   Y9, Y12, Y9
	VMOVDQU Y8, 576(DI)
	VMOVDQU Y9, 608(DI)
	VZEROUPPER
	RET
