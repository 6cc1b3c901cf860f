	.text
	.intel_syntax noprefix

	.globl caller
	.seh_proc caller
caller:
	sub	rsp, 0x28
	.seh_stackalloc 0x28
	.seh_endprologue
	call	victim
	add	rsp, 0x28
	ret
	.seh_endproc

	.globl ends
	.seh_proc ends
ends:
	push	rbx
	.seh_pushreg rbx
	sub	rsp, 0x20
	.seh_stackalloc 0x20
	.seh_endprologue
	call	victim
	.seh_endproc

	.globl victim
	.seh_proc victim
victim:
	ret
	push	rbx
	.seh_pushreg rbx
	.seh_endprologue
	nop
	.seh_endproc

	.globl machine
	.seh_proc machine
machine:
	.seh_pushframe
	push	rbp
	.seh_pushreg rbp
	.seh_endprologue
	nop
	.seh_endproc

	.globl coded
	.seh_proc coded
coded:
	.seh_pushframe @code
	push	rbp
	.seh_pushreg rbp
	.seh_endprologue
	nop
	.seh_endproc

	.globl _DllMainCRTStartup
_DllMainCRTStartup:
	mov	eax, 1
	ret
	.section .drectve,"yn"
	.ascii	" /export:caller /export:ends /export:victim /export:machine /export:coded"
