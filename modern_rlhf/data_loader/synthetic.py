"""The built-in 11-example source, for trying things out without any file: the path `synthetic`.

Eleven everyday functions, each with a prompt, a solution and three asserts. It is far too small to
train or to measure anything.
"""

from __future__ import annotations

from modern_rlhf.records import Demonstration, Task

# (name, prompt, solution, three asserts)
_EXAMPLES: tuple[tuple[str, str, str, tuple[str, str, str]], ...] = (
    (
        "factorial",
        "Write a function factorial(n) that returns the factorial of a non-negative integer.",
        "def factorial(n):\n    result = 1\n    for factor in range(2, n + 1):\n"
        "        result *= factor\n    return result\n",
        ("assert factorial(0) == 1", "assert factorial(5) == 120", "assert factorial(7) == 5040"),
    ),
    (
        "is_palindrome",
        "Write a function is_palindrome(text) that says whether a string reads the same backwards, "
        "ignoring case and spaces.",
        "def is_palindrome(text):\n    letters = text.replace(' ', '').lower()\n"
        "    return letters == letters[::-1]\n",
        (
            "assert is_palindrome('Never odd or even')",
            "assert not is_palindrome('python')",
            "assert is_palindrome('')",
        ),
    ),
    (
        "sort_numbers",
        "Write a function sort_numbers(values) that returns a new list with the numbers in "
        "ascending order, without using sorted or list.sort.",
        "def sort_numbers(values):\n    ordered = []\n    for value in values:\n"
        "        place = len(ordered)\n        while place and ordered[place - 1] > value:\n"
        "            place -= 1\n        ordered.insert(place, value)\n    return ordered\n",
        (
            "assert sort_numbers([3, 1, 2]) == [1, 2, 3]",
            "assert sort_numbers([]) == []",
            "assert sort_numbers([5, -1, 5, 0]) == [-1, 0, 5, 5]",
        ),
    ),
    (
        "fibonacci",
        "Write a function fibonacci(n) that returns the first n Fibonacci numbers, starting with 0.",
        "def fibonacci(n):\n    numbers = []\n    current, following = 0, 1\n"
        "    for _ in range(n):\n        numbers.append(current)\n"
        "        current, following = following, current + following\n    return numbers\n",
        (
            "assert fibonacci(0) == []",
            "assert fibonacci(1) == [0]",
            "assert fibonacci(7) == [0, 1, 1, 2, 3, 5, 8]",
        ),
    ),
    (
        "is_prime",
        "Write a function is_prime(n) that says whether an integer is a prime number.",
        "def is_prime(n):\n    if n < 2:\n        return False\n    divisor = 2\n"
        "    while divisor * divisor <= n:\n        if n % divisor == 0:\n"
        "            return False\n        divisor += 1\n    return True\n",
        ("assert is_prime(2)", "assert not is_prime(1)", "assert not is_prime(91)"),
    ),
    (
        "greatest_common_divisor",
        "Write a function greatest_common_divisor(a, b) for two positive integers.",
        "def greatest_common_divisor(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n",
        (
            "assert greatest_common_divisor(12, 18) == 6",
            "assert greatest_common_divisor(7, 13) == 1",
            "assert greatest_common_divisor(10, 5) == 5",
        ),
    ),
    (
        "count_words",
        "Write a function count_words(text) that returns a dictionary from each word, in lower "
        "case, to how often it occurs.",
        "def count_words(text):\n    counts = {}\n    for word in text.lower().split():\n"
        "        counts[word] = counts.get(word, 0) + 1\n    return counts\n",
        (
            "assert count_words('to be or not to be') == {'to': 2, 'be': 2, 'or': 1, 'not': 1}",
            "assert count_words('') == {}",
            "assert count_words('A a') == {'a': 2}",
        ),
    ),
    (
        "flatten",
        "Write a function flatten(items) that turns arbitrarily nested lists into one flat list.",
        "def flatten(items):\n    flat = []\n    for item in items:\n"
        "        if isinstance(item, list):\n            flat.extend(flatten(item))\n"
        "        else:\n            flat.append(item)\n    return flat\n",
        (
            "assert flatten([1, [2, [3, []]], 4]) == [1, 2, 3, 4]",
            "assert flatten([]) == []",
            "assert flatten([['a'], 'b']) == ['a', 'b']",
        ),
    ),
    (
        "binary_search",
        "Write a function binary_search(values, target) that returns the index of target in an "
        "ascending list, or -1.",
        "def binary_search(values, target):\n    low, high = 0, len(values) - 1\n"
        "    while low <= high:\n        middle = (low + high) // 2\n"
        "        if values[middle] == target:\n            return middle\n"
        "        if values[middle] < target:\n            low = middle + 1\n"
        "        else:\n            high = middle - 1\n    return -1\n",
        (
            "assert binary_search([1, 3, 5, 8], 5) == 2",
            "assert binary_search([1, 3, 5, 8], 4) == -1",
            "assert binary_search([], 1) == -1",
        ),
    ),
    (
        "unique",
        "Write a function unique(items) that removes duplicates from a list and keeps the order of "
        "the first occurrences.",
        "def unique(items):\n    seen = set()\n    kept = []\n    for item in items:\n"
        "        if item not in seen:\n            seen.add(item)\n            kept.append(item)\n"
        "    return kept\n",
        (
            "assert unique([3, 1, 3, 2, 1]) == [3, 1, 2]",
            "assert unique([]) == []",
            "assert unique(['b', 'a', 'b']) == ['b', 'a']",
        ),
    ),
    (
        "reverse_words",
        "Write a function reverse_words(sentence) that returns the words of a sentence in reverse "
        "order, separated by single spaces.",
        "def reverse_words(sentence):\n    return ' '.join(reversed(sentence.split()))\n",
        (
            "assert reverse_words('one two three') == 'three two one'",
            "assert reverse_words('') == ''",
            "assert reverse_words('  a   b ') == 'b a'",
        ),
    ),
)


def synthetic_tasks() -> list[Task]:
    """The eleven examples as tasks with tests."""
    return [
        Task(f"synthetic/{name}", prompt, solution, tests, entry_point=name, family=name)
        for name, prompt, solution, tests in _EXAMPLES
    ]


def synthetic_demonstrations() -> list[Demonstration]:
    """The eleven examples as prompts and answers."""
    return [
        Demonstration(task.prompt, task.reference, group_id=task.task_id, source="synthetic")
        for task in synthetic_tasks()
    ]
