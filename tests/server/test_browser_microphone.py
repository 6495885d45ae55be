"""Microphones that go in a call and come back, and who is heard by them then."""

from test_browser import _browser, _link, _view, pytestmark  # noqa: F401  # fixtures, and where these tests run

DEVICES = """() => {
  const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
  window.unplug = () => {
    devices.getUserMedia = async () => { throw new DOMException("", "NotFoundError"); };
    fake.pcs[0].sent.stop();
    fake.pcs[0].sent.dispatchEvent(new Event("ended"));
  };
  window.plug = () => {
    devices.getUserMedia = async (wanted) => (window.given = await ask(wanted));
    devices.dispatchEvent(new Event("devicechange"));
  };
}"""

SENT_MUTED = "fake.pcs[0].sent === given.getTracks()[0] && !given.getTracks()[0].enabled"


def unplug(one):
    one.page.evaluate("unplug()")
    one.page.wait_for_selector("#deaf:visible")


def plug(one):
    one.page.evaluate("plug()")
    one.page.wait_for_selector("#deaf", state="hidden")


def test_a_microphone_that_goes_and_comes_back(view):
    one = view()
    one.call()
    one.page.keyboard.press("m")
    one.page.evaluate(DEVICES)
    unplug(one)
    one.page.keyboard.press("m")
    assert one.page.get_attribute("#mute use", "href") == "#i-mic-off" and one.page.is_visible("#deaf")
    plug(one)
    assert one.page.evaluate(SENT_MUTED), "still muted"


def test_a_microphone_that_comes_back_while_a_new_line_is_tried_is_heard_on_the_old(view):
    one, held = view(), []
    one.call()
    one.page.evaluate(DEVICES)
    one.page.route("**/offer", lambda route: held.append(route))  # noqa: PLW0108  # playwright marks functions
    one.page.evaluate("fake.pcs[0].become('failed')")
    while not held:
        one.page.wait_for_timeout(50)
    unplug(one)
    plug(one)
    one.page.evaluate("fake.pcs[0].become('connected')")
    held[0].abort()
    one.state("listening")
    assert one.page.evaluate("fake.pcs[0].sent === given.getTracks()[0]")


def test_who_lets_go_of_space_without_a_microphone_is_muted_when_it_is_back(view):
    one = view()
    one.call()
    one.page.evaluate(DEVICES)
    one.page.keyboard.press("m")
    one.page.keyboard.down(" ")
    assert one.page.evaluate("fake.pcs[0].sent.enabled")
    unplug(one)
    one.page.keyboard.up(" ")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"
    plug(one)
    assert one.page.evaluate(SENT_MUTED)


def test_who_mutes_without_a_microphone_is_muted_when_it_is_back(view):
    one = view()
    one.call()
    one.page.evaluate(DEVICES)
    unplug(one)
    one.page.keyboard.press("m")
    assert one.page.get_attribute("#mute", "aria-pressed") == "true"
    plug(one)
    assert one.page.evaluate(SENT_MUTED)
