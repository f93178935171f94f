"""A small report as `ncu --page raw --csv --print-units base` prints it."""

KERNELS = ("moe_up_mma_n8", "void moe_down_combine<4>(const float *, int)")
METRICS = {
    # name: (unit, value for each kernel)
    "gpu__time_duration.sum": ("ns", "13,100", "2,050.5"),
    "dram__bytes_read.sum": ("byte", "35,500,000", "100,000"),
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("%", "84.5", "60"),
    "lts__t_sector_hit_rate.pct": ("%", "12.25", "50"),
    "sm__inst_issued.avg.pct_of_peak_sustained_active": ("%", "41", "9"),
    "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active": ("%", "72.5", "3"),
    "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active": ("%", "20", "1"),
    "sm__inst_executed_pipe_lsu.avg.pct_of_peak_sustained_active": ("%", "n/a", "1"),
    "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active": ("%", "11", "0"),
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": ("", "9.5", "1"),
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": ("", "0.75", "2"),
    "smsp__average_warps_issue_stalled_selected_per_issue_active.ratio": ("", "1", "1"),
    "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio": ("", "1.5", "0"),
    "smsp__average_warps_issue_stalled_gmma_per_issue_active.ratio": ("", "0", "0"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum": ("", "1,024", "0"),
    "smsp__inst_executed_op_local_ld.sum": ("inst", "0", "0"),
    "smsp__inst_executed_op_local_st.sum": ("inst", "8", "0"),
    "launch__registers_per_thread": ("register/thread", "128", "32"),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("%", "24.9", "12"),
    "launch__shared_mem_per_block": ("byte/block", "66,560", "0"),
    "launch__grid_size": ("", "132", "8"),
}


def raw_page(num_launches: int = 2) -> str:
    """Chatter, the names, the units, and a line a launch."""
    head = ("ID", "Process ID", "Kernel Name", "Block Size", "Grid Size", "CC")
    rows = [(*head, *METRICS), ("",) * len(head) + tuple(unit for unit, *_ in METRICS.values())]
    for index in range(num_launches):
        values = (str(index), "4711", KERNELS[index], "(256, 1, 1)", "(132, 1, 1)", "9.0")
        rows.append(values + tuple(cells[index + 1] for cells in METRICS.values()))
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    return "\n".join(["==PROF== Disconnected from process 4711", *lines, ""])
