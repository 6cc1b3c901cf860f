	.text

	.macro	handler name, directive
	.globl	\name
	.p2align 2
	.seh_proc \name
\name:
	\directive
	.seh_endprologue
	nop
	brk	#1
	.seh_endproc
	.endm

	.globl	caller
	.p2align 2
	.seh_proc caller
caller:
	stp	x29, x30, [sp, #-32]!
	.seh_save_fplr_x 32
	.seh_endprologue
	bl	victim
	.seh_startepilogue
	ldp	x29, x30, [sp], #32
	.seh_save_fplr_x 32
	.seh_endepilogue
	ret
	.seh_endproc

	.globl	ends
	.seh_proc ends
ends:
	stp	x29, x30, [sp, #-48]!
	.seh_save_fplr_x 48
	.seh_endprologue
	bl	victim
	.seh_endproc

	.globl	victim
	.seh_proc victim
victim:
	sub	sp, sp, #16
	.seh_stackalloc 16
	.seh_endprologue
	nop
	.seh_startepilogue
	add	sp, sp, #16
	.seh_stackalloc 16
	.seh_endepilogue
	ret
	.seh_endproc

	handler	trap, .seh_trap_frame
	handler	machine, .seh_pushframe
	handler	context, .seh_context
	handler	hybrid, .seh_ec_context
	handler	cleared, .seh_clear_unwound_to_call

	.globl	_DllMainCRTStartup
_DllMainCRTStartup:
	mov	w0, #1
	ret
	.section .drectve,"yn"
	.ascii	" /export:caller /export:ends /export:victim /export:trap /export:machine /export:context /export:hybrid /export:cleared"
