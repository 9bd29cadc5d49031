// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal guest: an ELF kernel for `cvmm run --kernel`, and for VMMs that enter one by its PVH note.
//!
//! A KVM without hardware virtualization emulates privilege level 0 and runs level 3 on the CPU: so the entry leaves
//! level 0 at once, with I/O privilege level 3, and never comes back. There is no interrupt and no handler: an
//! exception ends the guest.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::arch::global_asm;
use core::fmt::Write;
use core::panic::PanicInfo;

use cvmm_hostile::guest::{Hardware, Machine, START, run, work};

global_asm!(
    ".globl _start",
    "_start:",
    "mov rdi, rsi", // the zero page (boot.rst, 64-bit BOOT PROTOCOL)
    "mov eax, offset hostile_pml4",
    "mov cr3, rax",
    "hostile_start:",
    "mov rax, cr4",
    "or eax, 0x600", // OSFXSR, OSXMMEXCPT: compiled code uses SSE
    "mov cr4, rax",
    "lgdt [hostile_gdt_pointer]",
    // A task state whose bitmap allows all ports, for a KVM that looks there whatever the privilege level is.
    "mov eax, offset hostile_tss",
    "mov [hostile_gdt + 0x2a], ax",
    "shr eax, 16",
    "mov [hostile_gdt + 0x2c], al",
    "mov [hostile_gdt + 0x2f], ah",
    "mov word ptr [hostile_tss + 102], 104",
    "mov eax, 0x28",
    "ltr ax",
    "push 0x23", // SS: data, level 3
    "mov eax, offset hostile_stack_end - 8",
    "push rax",
    "push 0x3002", // RFLAGS: I/O privilege level 3, and the bit that is always set
    "push 0x1b",   // CS: code, level 3
    "mov eax, offset {main}",
    "push rax",
    "iretq",
    // VMMs other than ours enter an ELF kernel here, without paging (Xen, docs/misc/pvh.pandoc).
    ".code32",
    "hostile_pvh:",
    "mov eax, cr4",
    "or eax, 0x20", // PAE
    "mov cr4, eax",
    "mov eax, offset hostile_pml4",
    "mov cr3, eax",
    "mov ecx, 0xc0000080", // EFER: long mode
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, 0x80000011", // paging
    "mov cr0, eax",
    "lgdt [hostile_gdt_pointer]",
    ".byte 0xea", // jmp far
    ".long hostile_pvh_64",
    ".word 8",
    ".code64",
    "hostile_pvh_64:",
    "mov edi, ebx", // the start info
    "jmp hostile_start",
    // XEN_ELFNOTE_PHYS32_ENTRY.
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long hostile_pvh",
    ".data",
    ".balign 8",
    "hostile_gdt: .quad 0, 0x00af9b000000ffff, 0, 0x00affb000000ffff, 0x00cff3000000ffff, 0x0000890000002068, 0",
    "hostile_gdt_pointer: .word 55",
    ".quad hostile_gdt",
    // The first 5 GiB, mapped to themselves, for level 3 too.
    ".balign 4096",
    "hostile_pml4: .quad hostile_pdpt + 7",
    ".fill 511, 8, 0",
    "hostile_pdpt: .quad hostile_pages + 7, hostile_pages + 0x1007, hostile_pages + 0x2007, hostile_pages + 0x3007, hostile_pages + 0x4007",
    ".fill 507, 8, 0",
    "hostile_pages:",
    ".set page, 0",
    ".rept 2560",
    ".quad page + 0x87",
    ".set page, page + 0x200000",
    ".endr",
    ".bss",
    ".balign 16",
    "hostile_tss: .fill 0x2069",
    ".balign 16",
    ".fill 0x10000",
    "hostile_stack_end:",
    ".text",
    main = sym main,
);

// Where a second CPU begins (Intel SDM 3A, 9.4.3), once `guest::second` has copied it to START: 16 bits, 32 bits, 64 bits, and level
// 3, without a task state, since it uses no port.
global_asm!(
    ".globl hostile_second, hostile_second_end",
    ".code16",
    "hostile_second:",
    ".byte 0x2e, 0x0f, 0x01, 0x16", // lgdt cs:
    ".word hostile_second_pointer - hostile_second",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xea", // jmp far
    ".long {start} + hostile_second_32 - hostile_second",
    ".word 8",
    ".code32",
    "hostile_second_32:",
    "mov ax, 16",
    "mov ds, ax",
    "mov ss, ax",
    "mov eax, cr4",
    "or eax, 0x620", // PAE, and as above
    "mov cr4, eax",
    "mov eax, offset hostile_pml4",
    "mov cr3, eax",
    "mov ecx, 0xc0000080", // EFER: long mode
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, 0x80000011", // paging
    "mov cr0, eax",
    ".byte 0xea",
    ".long {start} + hostile_second_64 - hostile_second",
    ".word 0x18",
    ".code64",
    "hostile_second_64:",
    "lgdt [hostile_gdt_pointer]",
    "mov esp, offset hostile_second_stack_end - 8",
    "mov eax, esp",
    "push 0x23",
    "push rax",
    "push 0x3002",
    "push 0x1b",
    "mov eax, offset {main}",
    "push rax",
    "iretq",
    ".balign 8",
    "hostile_second_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff",
    "hostile_second_pointer: .word 31",
    ".long {start} + hostile_second_gdt - hostile_second",
    "hostile_second_end:",
    ".bss",
    ".balign 16",
    ".fill 0x4000",
    "hostile_second_stack_end:",
    ".text",
    start = const START,
    main = sym second_main,
);

// What compiled code calls and a C library would have.
global_asm!(
    ".globl memcpy, memset, memcmp, bcmp",
    "memcpy: mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    "memset: mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    "memcmp:",
    "bcmp: xor eax, eax",
    "mov rcx, rdx",
    "test rcx, rcx", // which clears what repe would look at
    "repe cmpsb",
    "seta al",
    "sbb al, 0",
    "movsx eax, al",
    "ret",
);

extern "C" fn main(start: u64) -> ! {
    // SAFETY: the tables above map memory to itself, the entry set the I/O privilege level, and this program ends
    // below 8 MiB.
    run(unsafe { Hardware::of_this_machine() }, start, program(), second())
}

/// Where this program is, as the linker says.
fn program() -> (u64, u64) {
    unsafe extern "C" {
        #[link_name = "__executable_start"]
        static START: u8;
        #[link_name = "_end"]
        static END: u8;
    }
    let (start, end) = (&raw const START, &raw const END);
    (start.addr() as u64, end.addr() as u64)
}

/// The second CPU's first code.
fn second() -> &'static [u8] {
    unsafe extern "C" {
        #[link_name = "hostile_second"]
        static START: u8;
        #[link_name = "hostile_second_end"]
        static END: u8;
    }
    let (start, end) = (&raw const START, &raw const END);
    // SAFETY: the code is between the two symbols.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

extern "C" fn second_main() -> ! {
    work()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // SAFETY: as above.
    let hardware = unsafe { Hardware::of_this_machine() };
    if let Some(machine) = Machine::find(hardware, 0x7000, program()) {
        let _ = writeln!(machine.console(), "FAILED: {info}");
    }
    hardware.crash()
}
