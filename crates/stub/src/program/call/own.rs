//! Calls that the host carries out by itself ([`crate::layout::own_call`]): a part of the code for calls.
//!
//! rbx is the area, rcx the number, rsi the application's still. A call that has trapped comes in at `call_own`.

/// Leads on to the next `5:` with all other calls.
macro_rules! own_calls {
    () => {
        concat!(
            "5:  cmp rcx, {sched_yield}\n",
            "    je 4f\n",
            "    cmp rcx, {futex}\n",
            "    jne 5f\n",
            // What the host carries out by itself.
            "4:  cmp dword ptr [rbx + {own_calls}], 0\n",
            "    je 5f\n",
            "    cmp ecx, {sched_yield}\n",
            "    je 6f\n",
            "    cmp esi, {wait_realtime}\n",
            "    je 6f\n",
            "    mov edx, esi\n",
            "    xor edx, {private}\n",
            "    cmp edx, {last_command}\n",
            "    ja 5f\n",
            "    mov eax, {commands}\n",
            "    bt eax, edx\n",
            "    jnc 5f\n",
            "6:  rdtsc\n",
            "    mov [rbx + {began}], eax\n",
            "    mov [rbx + {began} + 4], edx\n",
            "    mov dword ptr [rbx + {in_host}], 1\n",
            "    mov rdi, [rbx + {rdi}]\n",
            "    mov rdx, [rbx + {rdx}]\n",
            "    mov r9, [rbx + {r9}]\n",
            // rsi is the application's still, of which the host is shown what counts: the filter looks at all of it.
            ".globl call_own\n",
            "call_own:\n",
            "    mov esi, esi\n",
            "    mov eax, [rbx + {nr}]\n",
            "    syscall\n",
            ".globl call_owned\n",
            "call_owned:\n",
            "    mov [rbx + {result}], rax\n",
            ".globl call_own_ends\n",
            "call_own_ends:\n",
            "    mov dword ptr [rbx + {in_host}], 0\n",
            "    cmp eax, {fault}\n",
            "    je 6f\n",
            // It was not application code that took so long.
            "    rdtsc\n",
            "    mov [rbx + {resumed_at}], eax\n",
            "    mov [rbx + {resumed_at} + 4], edx\n",
            "    jmp call_resume\n",
            // Memory that the sentry may have yet to map, or that is not there: it is asked after all.
            "6:  int3\n",
            ".globl call_unanswered\n",
            "call_unanswered:\n",
            "    ud2\n",
        )
    };
}
pub(super) use own_calls;
