# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Runs a function in forked processes: quick, since nothing is imported again, and safe to kill."""

import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any


SILENT = {"TOKENIZERS_PARALLELISM": "false"}


def run_forked(
    function: Callable[..., Any], *arguments: Any, world_size: int = 1, timeout: float = 120.0
) -> list[int]:
    """Calls `function(*arguments)` in `world_size` new processes that can form a gloo group; returns their exit codes.

    A code of `-9` means killed by SIGKILL. An exception is printed and gives the code 1.
    """
    context = multiprocessing.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        context.Process(target=_child, args=(function, arguments, rank, world_size, port))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"A test process did not end within {timeout} s.")
    return [process.exitcode for process in processes]


def kill_self() -> None:
    """Ends the process as `kill -9` does: nothing is flushed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def _child(function: Callable[..., Any], arguments: tuple, rank: int, world_size: int, port: int) -> None:
    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    code = 0
    try:
        torch.set_num_threads(1)
        os.environ.update(SILENT)
        for state in (AcceleratorState, PartialState, GradientState):
            state._shared_state.clear()
        if world_size > 1:
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(world_size),
                LOCAL_WORLD_SIZE=str(world_size),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)
