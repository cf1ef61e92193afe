//! Orders that are carried out in a call from a rewritten site: a part of the code for calls.

/// Comes in with the reply in ecx.
macro_rules! orders {
    () => {
        concat!(
            // System calls that the sentry asks for before the call returns, or before it says more. Registers that the call keeps are in
            // the area.
            "call_orders:\n",
            "    mov r14d, ecx\n",
            "    mov r13d, [rbx + {order_count}]\n",
            "    cmp r13d, {max_cells}\n",
            "    ja call_alone\n",
            "    lea r12, [rbx + {cells}]\n",
            "    xor r15d, r15d\n",
            "1:  cmp r15d, r13d\n",
            "    jae 2f\n",
            ".globl call_order_loads\n",
            "call_order_loads:\n",
            "    mov rax, [r12]\n",
            "    mov rdi, [r12 + {cell_args}]\n",
            "    mov rsi, [r12 + {cell_args} + 8]\n",
            "    mov rdx, [r12 + {cell_args} + 16]\n",
            "    mov r10, [r12 + {cell_args} + 24]\n",
            "    mov r8, [r12 + {cell_args} + 32]\n",
            "    mov r9, [r12 + {cell_args} + 40]\n",
            // A kick that has come already ends what may take long.
            "    cmp rax, {futex}\n",
            "    je 4f\n",
            "    cmp rax, {waitv}\n",
            "    jne call_order\n",
            "4:  cmp dword ptr [rbx + {kicked}], 0\n",
            "    je call_order\n",
            "    mov dword ptr [rbx + {kicked}], 0\n",
            "    mov rax, {interrupted}\n",
            "    jmp call_order_made\n",
            ".globl call_order\n",
            "call_order:\n",
            "    syscall\n",
            ".globl call_order_made\n",
            "call_order_made:\n",
            "    mov [r12 + {cell_result}], rax\n",
            "    cmp rax, {max_errno}\n",
            "    jae 2f\n",
            "    add r12, {cell_len}\n",
            "    inc r15d\n",
            "    jmp 1b\n",
            "2:  mov [rbx + {orders_done}], r15d\n",
            // Done, or given up: a kick from here on is one of a call that has its reply, or waits for one.
            "    mov dword ptr [rbx + {order_count}], 0\n",
            "    mov ecx, r14d\n",
            "    sub r13d, r15d\n",
            "    mov r8, [rbx + {r8}]\n",
            "    mov r12, [rbx + {r12}]\n",
            "    mov r14, [rbx + {r14}]\n",
            "    mov r15, [rbx + {r15}]\n",
            "    test r13d, r13d\n",
            "    mov r13, [rbx + {r13}]\n",
            "    jnz 3f\n",
            "    cmp ecx, {reply_resume}\n",
            "    je call_ordered\n",
            // A thread that has trapped comes here as well, to be given orders that no handler of a signal could carry out: its registers
            // are where a call from a rewritten site has them.
            "3:\n",
            "call_asks_anew:\n",
            "    mov dword ptr [rbx + {stop}], {stop_orders}\n",
            "    rdpid rsi\n",
            "    and esi, 0xfff\n",
            "    mov [rbx + {info}], esi\n",
            "    rdtsc\n",
            "    mov [rbx + {stopped_at}], eax\n",
            "    mov [rbx + {stopped_at} + 4], edx\n",
            "    mov dword ptr [rbx + {state}], {state_request}\n",
            "    jmp call_waits\n",
        )
    };
}
pub(super) use orders;
