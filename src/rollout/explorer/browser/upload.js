// A button that chooses a file and sends it to Python in slices: the notebook's server ends the
// connection at a message of more than 10 MB, without a word.

const SLICE = 4 * 2 ** 20;

function render({ model, el }) {
  const button = document.createElement("button"), input = document.createElement("input");
  button.className = "jupyter-button rollout-upload";
  button.title = "upload an image file";
  input.type = "file";
  const say = text => {
    const icon = document.createElement("i");
    icon.className = "fa fa-upload";
    button.replaceChildren(icon, ` ${text}`);
  };
  button.onclick = () => input.click();
  async function send(file) {
    const total = Math.max(1, Math.ceil(file.size / SLICE));
    for (let index = 0; index < total; index++) {
      if (total > 1) say(`${Math.round(100 * index / total)} %`);
      const slice = await file.slice(index * SLICE, (index + 1) * SLICE).arrayBuffer();
      model.send({ name: file.name, index, total }, undefined, [slice]);
    }
  }
  input.onchange = async () => {
    button.disabled = true;
    try {
      for (const file of input.files) await send(file);
    } finally {
      input.value = "";  // the same file may come again
      button.disabled = false;
      say("Upload");
    }
  };
  say("Upload");
  el.append(button);
}

export default { render };
