"""Launches from threads in which torch has done nothing yet."""

import threading

from .test_launcher import driver, start  # noqa: F401 (a fixture)


def test_a_thread_without_a_context_gets_its_device_s(driver):  # noqa: F811
    start()
    assert driver.context == "cuDevicePrimaryCtxRetain"
    driver.context = 0
    start()
    assert driver.context == 0, "bound once a thread"
    other = threading.Thread(target=start)
    other.start()
    other.join()
    assert driver.context == "cuDevicePrimaryCtxRetain" and len(driver.launches) == 3


def test_a_thread_with_a_context_keeps_it(driver):  # noqa: F811
    driver.context = 5
    start()
    assert driver.context == 5
