//! A handler of a signal that begins where a call from a rewritten site ends: a part of the code for calls.
//!
//! The sentry has put the handler's registers where the call's are. What it finds on its stack comes with the reply, but for the extended
//! state: that is in the processor still, and is written from there, without a signal frame of the host's.

/// Comes in with the reply in ecx.
macro_rules! begins {
    () => {
        concat!(
            ".globl call_begins\n",
            "call_begins:\n",
            "    mov r11d, ecx\n",
            "    mov edx, [rbx + {gift_count}]\n",
            "    mov rsi, [rbx + {gifts_at}]\n",
            "    lea rsi, [rbx + rsi + {parcel}]\n",
            "    lea r10, [rbx + {gifts}]\n",
            "1:  test edx, edx\n",
            "    jz 2f\n",
            "    mov rdi, [r10]\n",
            "    mov rcx, [r10 + 8]\n",
            "    rep movsb\n",
            "    add r10, 16\n",
            "    dec edx\n",
            "    jmp 1b\n",
            "2:  mov rdi, [rbx + {fpstate}]\n",
            "    mov eax, [rbx + {xfeatures}]\n",
            "    mov edx, [rbx + {xfeatures} + 4]\n",
            "    xsave64 [rdi]\n",
            // What a handler writes to the parts that all processors have counts (`save_xstate_epilog`).
            "    or qword ptr [rdi + 512], 3\n",
            "    lea rdi, [rip + {fresh}]\n",
            "    xrstor64 [rdi]\n",
            "    mov dword ptr [rbx + {gift_count}], 0\n",
            // A kick that came before, and every one that comes now, is taken up below.
            "    mov qword ptr [rbx + {fpstate}], 0\n",
            ".globl call_begun\n",
            "call_begun:\n",
            "    cmp r11d, {reply_frame}\n",
            "    je call_frames\n",
            "    cmp dword ptr [rbx + {kicked}], 0\n",
            "    jne call_kicks\n",
            "    jmp call_resume\n",
            ".globl call_begun_end\n",
            "call_begun_end:\n",
        )
    };
}
pub(super) use begins;
